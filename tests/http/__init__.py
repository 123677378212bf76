"""HTTP, its modules one by one, and a client and backends that the test plays."""
