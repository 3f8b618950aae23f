"""Training: what a run is, its losses, its checkpoints, and its folder."""
