"""Is it better? Clock, noise, early stop, verdict. TRUSTED, pure: no file, no process, no time but what it is given."""
