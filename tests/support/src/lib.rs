//! Private servers, a TCP fault proxy, a faulty disk and a checker, for Towpath's tests.
//!
//! Everything started here listens on loopback, on ports of its own, in a folder of its own, and ends with the test: on
//! drop, on a panic, and when the test process is killed (the kernel's parent death signal does that).
//!
//! * [`Postgres`], [`RabbitMq`]: real servers. [`Towpath`]: the real binary.
//! * [`Proxy`]: stands between two of them and breaks the link on command.
//! * [`AmqpProxy`]: stands between a publisher and RabbitMQ, falsifies the confirms, and bears witness to what was told.
//! * [`Disk`]: lies below a Towpath and fails on command; cuts the power; steps the clock.
//! * [`Checker`]: folds what a consumer received and compares it with the database.
//! * [`consumers`]: programs in other languages that take what Towpath published.
//! * [`eventually`]: the only way to wait. No test sleeps.

mod amqp_proxy;
mod certificates;
pub mod consumers;
mod faulty;
mod fold;
mod folder;
mod installed;
mod ports;
mod postgres;
mod process;
mod proxy;
mod rabbitmq;
mod towpath;
mod wait;

pub use amqp_proxy::{AmqpProxy, Confirms};
pub use certificates::Certificates;
pub use faulty::{Disk, Odds, PowerCut};
pub use fold::{Changes, Checker, Report};
pub use folder::Folder;
pub use ports::Port;
pub use postgres::{Postgres, PostgresBuilder};
pub use proxy::Proxy;
pub use rabbitmq::{Delivery, Inbox, QueueKind, RabbitMq, RabbitMqBuilder};
pub use towpath::{Towpath, TowpathBuilder};
pub use wait::{eventually, try_eventually};

pub use lapin;
pub use tokio_postgres;
