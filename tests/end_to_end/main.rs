//! The real binary between a real PostgreSQL and a real RabbitMQ.

mod admin;
mod chaos;
mod chinook;
mod crash;
mod delivery;
mod disk;
mod examples;
mod frameworks;
mod memory;
mod outage;
mod planted;
mod related;
mod rig;
mod rounds;
mod transform;
mod values;
mod workload;
