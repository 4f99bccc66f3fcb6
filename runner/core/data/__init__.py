"""From documents to a signed artifact: what `glovebox prepare` does. TRUSTED; shards and caches may be hostile."""
