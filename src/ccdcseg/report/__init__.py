"""One HTML page that shows what was compared, the answer, and the pictures to believe it."""
