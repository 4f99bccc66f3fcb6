"""The trusted side: rooms with one power each, what they share, and what people start. TRUSTED."""
