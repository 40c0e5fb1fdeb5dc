"""What a run found, for people: an HTML page and a model card."""
