"""What the proxy costs: its own CPU time and memory, between real clients and a real server."""
