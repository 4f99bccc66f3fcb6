"""A bench on its host: processes, doctor, gc, backup, export, import, notifications. TRUSTED."""
