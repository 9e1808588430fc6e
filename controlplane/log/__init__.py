"""The log: the only place that talks to Kafka.

Producing (`producer`), reading from exact positions (`reader`), JobForge's stream transport (`transport`), topics made
from the catalog (`topics`), and positions (`positions`).
"""
