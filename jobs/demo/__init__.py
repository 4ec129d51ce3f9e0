"""The demo: real events through a broker, the job and back, in a run that measures itself."""
