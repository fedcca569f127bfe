"""Every type of event that the log may hold, one aggregate a file.

An event is a frozen msgspec.Struct named in the past tense. Its type on the wire is the class's name, its
schema version `SCHEMA_VERSION`. A released event stays readable for ever: a changed one gets a higher version
and an upcaster in `runstream.upcasters`.
All types together are in `runstream.events.registry`: who needs those of one aggregate loads no others.
"""
