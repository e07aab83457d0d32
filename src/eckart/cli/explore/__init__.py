"""The page to play with: edits of one model on one task, seen as they are moved."""
