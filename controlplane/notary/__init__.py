"""The notary: signs what the log holds, and finds out whether it still does."""
