"""Who is who, who may do what, and what proves it: certificates, permissions, identities, encryption, checkpoints."""
