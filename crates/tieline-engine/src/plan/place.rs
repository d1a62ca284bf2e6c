//! How many layers go on the GPU: as many as fit there, where nobody asked for a number.

use tieline_types::{BackendError, Bytes, DeviceMemory, ErrorKind, LoadParams};

use super::{Plan, Planner};

/// Of what a device has free, one part in so many stays free where nobody asked for a number of layers: drivers take more than is
/// planned, and adapters lie beside the layers that they change.
const SPARED: u64 = 20;

/// A plan, and how many layers of it are on a GPU.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What the model takes.
    pub plan: Plan,
    /// How many layers fit, where not all do and nobody asked for a number.
    pub layers: Option<u32>,
}

/// Who plans.
trait Plans {
    fn plan(
        &mut self,
        params: &LoadParams,
    ) -> impl Future<Output = Result<Plan, BackendError>> + Send;
}

impl Plans for Planner {
    async fn plan(&mut self, params: &LoadParams) -> Result<Plan, BackendError> {
        Self::plan(self, params).await
    }
}

/// Plans a load; where no number of layers is asked for and not all fit into the memory of the devices, with as many as do.
///
/// # Errors
/// The model cannot be loaded so, whatever the memory; there is a device and not one layer fits there; or the runner died.
pub async fn place(planner: &mut Planner, params: &LoadParams) -> Result<Placed, BackendError> {
    place_by(planner, params).await
}

/// As [`place`], where devices have something else free than they say: `see` changes it.
///
/// # Errors
/// As for [`place`].
pub async fn place_as<F>(
    see: F,
    planner: &mut Planner,
    params: &LoadParams,
) -> Result<Placed, BackendError>
where
    F: Fn(&mut [DeviceMemory]) + Send,
{
    place_by(&mut As { planner, see }, params).await
}

/// Plans as if devices had something else free.
struct As<'p, F> {
    planner: &'p mut Planner,
    see: F,
}

impl<F: Fn(&mut [DeviceMemory]) + Send> Plans for As<'_, F> {
    async fn plan(&mut self, params: &LoadParams) -> Result<Plan, BackendError> {
        let mut plan = self.planner.plan(params).await?;
        (self.see)(&mut plan.model.devices);
        Ok(plan)
    }
}

/// Raises what devices have free to what they had.
pub fn had(once: &[DeviceMemory], now: &mut [DeviceMemory]) {
    for device in now {
        let had = once.iter().find(|had| had.name == device.name && had.total == device.total);
        device.free = had.map_or(device.free, |had| had.free.max(device.free));
    }
}

async fn place_by(planner: &mut impl Plans, params: &LoadParams) -> Result<Placed, BackendError> {
    let whole = Placed { plan: planner.plan(params).await?, layers: None };
    if params.gpu_layers.is_some() || fits(&whole.plan) {
        return Ok(whole);
    }
    // The most that fit. `high` does not.
    let (mut best, mut low, mut high) = (None, 0, whole.plan.model.layers);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let placed = with(planner, params, middle).await?;
        if fits(&placed.plan) {
            (best, low) = (Some(placed), middle);
        } else {
            high = middle;
        }
    }
    best.ok_or_else(|| nothing_fits(&whole.plan))
}

/// A processor would do all of the GPU's work, and nobody asked for that.
fn nothing_fits(whole: &Plan) -> BackendError {
    let devices = whole.model.devices.iter();
    let free: Vec<_> = devices.map(|one| format!("{} ({} free)", one.name, one.free)).collect();
    let layers = whole.model.layers;
    let text = format!("not one of {layers} layers fits on {}", free.join(" or "));
    BackendError::new(ErrorKind::OutOfMemory, text)
        .with_hint("see what else uses its memory, or ask for the processor: --gpu-layers 0")
}

/// Whether each device keeps what is to be spared.
fn fits(plan: &Plan) -> bool {
    plan.model.devices.iter().all(|device| {
        let room = device.free.0 - device.free.0 / SPARED;
        // A device that tells nothing cannot refuse anything.
        device.total == Bytes(0) || plan.model.memory.on(Some(&device.name)).0 <= room
    })
}

async fn with(
    planner: &mut impl Plans,
    params: &LoadParams,
    layers: u32,
) -> Result<Placed, BackendError> {
    let params = LoadParams { gpu_layers: Some(layers), ..params.clone() };
    Ok(Placed { plan: planner.plan(&params).await?, layers: Some(layers) })
}

#[cfg(test)]
mod tests {
    use super::super::fit::device_miss;
    use super::super::fit::tests::plan;
    use super::*;

    /// A model of five layers that takes 10 for each layer and 5 besides on a device with so much free; how often it was planned.
    struct Five(u64, usize);

    impl Plans for Five {
        async fn plan(&mut self, params: &LoadParams) -> Result<Plan, BackendError> {
            self.1 += 1;
            let layers = u64::from(params.gpu_layers.unwrap_or(u32::MAX).min(5));
            let device = if layers > 0 { 10 * layers + 5 } else { 0 };
            Ok(plan(100 - 10 * layers, device, self.0))
        }
    }

    async fn placed(asked: Option<u32>, free: u64) -> (Option<u32>, usize) {
        let params = LoadParams { gpu_layers: asked, ..LoadParams::default() };
        let mut planner = Five(free, 0);
        let placed = place_by(&mut planner, &params).await.unwrap();
        assert!(device_miss(&placed.plan).is_none() || asked.is_some());
        (placed.layers, planner.1)
    }

    #[tokio::test]
    async fn as_many_layers_as_fit_go_on_the_device() {
        assert_eq!(placed(None, 57).await, (None, 1));
        // One in twenty is spared.
        for (free, want) in [(56, 4), (47, 4), (46, 3), (26, 2), (25, 1), (15, 1)] {
            let (layers, plans) = placed(None, free).await;
            assert_eq!(layers, Some(want), "{free}");
            assert!(plans <= 5, "{plans}");
        }
    }

    #[tokio::test]
    async fn where_no_layer_fits_nobody_uses_the_processor_unasked() {
        for free in [14, 0] {
            let error = place_by(&mut Five(free, 0), &LoadParams::default()).await.unwrap_err();
            let want = format!("not one of 5 layers fits on G ({free} B free)");
            assert_eq!((error.kind, error.to_string()), (ErrorKind::OutOfMemory, want));
        }
        assert_eq!(placed(Some(0), 0).await, (None, 1));
    }

    #[test]
    fn a_device_has_again_what_it_had_and_another_does_not() {
        let device = |name: &str, free, total| DeviceMemory {
            name: name.to_owned(),
            free: Bytes(free),
            total: Bytes(total),
        };
        let once = [device("a", 50, 100), device("b", 5, 100), device("c", 90, 100)];
        let mut now = [device("a", 10, 100), device("b", 20, 100), device("c", 10, 99)];
        had(&once, &mut now);
        assert_eq!(now.map(|one| one.free.0), [50, 20, 10]);
    }

    #[tokio::test]
    async fn a_number_that_was_asked_for_stays() {
        assert_eq!(placed(Some(5), 0).await, (None, 1));
    }

    #[tokio::test]
    async fn a_plan_that_fails_fails() {
        struct Fails;
        impl Plans for Fails {
            async fn plan(&mut self, _: &LoadParams) -> Result<Plan, BackendError> {
                Err(BackendError::new(ErrorKind::InvalidRequest, "no such"))
            }
        }
        assert!(place_by(&mut Fails, &LoadParams::default()).await.is_err());
    }
}
