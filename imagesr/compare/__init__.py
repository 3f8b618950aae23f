"""Two results side by side: `imagesr compare`, `imagesr blind`."""
