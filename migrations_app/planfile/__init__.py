"""The plan as a YAML file: schema, reader, rules, differences, loading and export."""
