"""Contract suites and fakes, for Retinue's own tests and for authors of plug-ins."""
