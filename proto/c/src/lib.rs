//! Client of Mote for C and C++.
