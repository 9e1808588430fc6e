"""The HTTP contract: what the gateway and TruthCore answer, shared by both servers and every client."""
