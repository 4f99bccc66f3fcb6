"""Where untrusted bytes become values, and where the bits that cross are counted. TRUSTED, hostile input."""
