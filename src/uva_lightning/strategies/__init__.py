"""How several processes share the work beyond what Lightning has."""
