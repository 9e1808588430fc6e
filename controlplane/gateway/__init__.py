"""The gateway: HTTP in and out, the schema registry's read side, and the console."""
