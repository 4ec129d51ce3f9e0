"""Apache Kafka by confluent-kafka: the source, the two sinks, the journal's reader, the admin."""
