"""Files to frames and pictures, and back. It alone knows PyAV and libvips."""
