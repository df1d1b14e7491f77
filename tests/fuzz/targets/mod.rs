//! What reads the data of a guest, or of a file that somebody may have changed, driven by bytes
//! of a fuzzer's making. Each target takes any bytes, and panics when a promise is broken.

mod driver;
mod frames;
mod peer;
mod services;
mod session;
mod template;
mod virtio;
mod vsock;

pub use frames::frames;
pub use services::services;
pub use session::session;
pub use template::template;
pub use virtio::virtio;
pub use vsock::vsock;

use arbitrary::{Arbitrary, Unstructured};

/// The steps of a script that these bytes hold.
fn steps<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> impl Iterator<Item = T> {
    let mut rest = Unstructured::new(data);
    std::iter::from_fn(move || (!rest.is_empty()).then(|| T::arbitrary(&mut rest).ok())?)
}
