"""Which TruthCore processes there are and how far each is: what the gateway and shards go by when they ask one."""
