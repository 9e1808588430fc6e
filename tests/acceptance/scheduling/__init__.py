"""Tests of scheduling on one stack."""
