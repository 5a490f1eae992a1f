//! The io_uring back end.

pub(crate) fn probe() -> Result<(), String> {
    Err("not built yet".into())
}
pub(crate) type Uring = super::epoll::Epoll;
