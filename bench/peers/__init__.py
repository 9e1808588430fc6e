"""Other job systems for Python, given the same work on the same machine in the same run."""
