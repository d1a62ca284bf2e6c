//! How many layers go on the GPU: as many as fit there, where nobody asked for a number.

use tieline_types::{BackendError, Bytes, DeviceMemory, LoadParams};

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
/// The model cannot be loaded so, whatever the memory, or the runner died.
pub async fn place(planner: &mut Planner, params: &LoadParams) -> Result<Placed, BackendError> {
    place_by(planner, params).await
}

/// As [`place`], with what devices had free once, where that was more than it is now: when models leave, they have it again.
///
/// # Errors
/// As for [`place`].
pub async fn place_into(
    devices: &[DeviceMemory],
    planner: &mut Planner,
    params: &LoadParams,
) -> Result<Placed, BackendError> {
    place_by(&mut Into { planner, devices }, params).await
}

/// Plans as if devices had something else free.
struct Into<'p> {
    planner: &'p mut Planner,
    devices: &'p [DeviceMemory],
}

impl Plans for Into<'_> {
    async fn plan(&mut self, params: &LoadParams) -> Result<Plan, BackendError> {
        let mut plan = self.planner.plan(params).await?;
        had(self.devices, &mut plan.model.devices);
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
    // The most that fit; none at all are always an answer. `high` does not fit.
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
    match best {
        Some(best) => Ok(best),
        None => with(planner, params, 0).await,
    }
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
    use tieline_types::ErrorKind;

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
        for (free, want) in [(56, 4), (47, 4), (46, 3), (26, 2), (25, 1), (15, 1), (14, 0), (0, 0)]
        {
            let (layers, plans) = placed(None, free).await;
            assert_eq!(layers, Some(want), "{free}");
            assert!(plans <= 5, "{plans}");
        }
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
