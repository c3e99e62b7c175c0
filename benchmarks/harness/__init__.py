"""How things are measured, recorded and shown, whatever they are."""
