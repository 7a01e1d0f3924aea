"""DECIDE: functions from values to values. No client, no clock, no randomness, no environment."""
