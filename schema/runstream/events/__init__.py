"""All event types of the log, one file for each aggregate.

An event is a frozen msgspec.Struct named in the past tense. Its type on the wire is the class's name, its schema
version `SCHEMA_VERSION`. A released event stays readable for ever: a changed one gets a higher version and an upcaster
in `runstream.upcasters`. `runstream.events.registry` has all types together, so that code about one aggregate loads no
others.
"""
