//! Mote on D-Bus.
