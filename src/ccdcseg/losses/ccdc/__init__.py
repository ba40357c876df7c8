"""CCDC, an equation of its paper a module."""
