"""How far one picture is from another, and how natural it looks. No files, no models of ours."""
