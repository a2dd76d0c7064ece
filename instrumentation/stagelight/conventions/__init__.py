"""Names that Stagelight emits: the registry in YAML and what is generated from it."""
