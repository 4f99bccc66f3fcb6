"""What a person starts. TRUSTED; nothing that runs unattended imports it."""
