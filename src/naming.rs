//! The name server: Mesos-DNS' names and answers, made from snapshots.
