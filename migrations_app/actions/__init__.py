"""What a person or a trigger may do. Each action is one transaction with its audit event."""
