"""A model that listens, writes and speaks: see `speech_lm.SpeechLM`; docs/generating.md."""
