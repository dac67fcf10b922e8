"""The operator's side: commands, settings, process supervision, the embedded broker, the demo."""
