"""What the rows teach: kinds of edits, incidents, transfers. TRUSTED, pure."""
