"""Everything that is only shown: terminal, HTML, Markdown. TRUSTED, reads only."""
