pub(super) async fn write() {}
pub(super) async fn read() {}
