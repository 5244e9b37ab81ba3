"""The stream: a worker that takes transactions from Kafka and answers with the same decisions as HTTP."""
