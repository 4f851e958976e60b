//! Consumer-group coordinators as state machines. Pure.
