//! placeholder
pub fn tokens(_: &str) -> impl Iterator<Item = u16> + '_ {
    std::iter::empty()
}
