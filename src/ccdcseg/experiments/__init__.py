"""The paper's tables as declared grids of trainings, a runner, and tables of what was measured."""
