# A small Gram-GAN under MMEngine alone, without MMagic: what train_gramgan_sample.yml trains.
#   pip install "gramgan-plugin[mmengine]" && basicsr prepare sample
#   python -c "from mmengine import Config; from mmengine.runner import Runner
#   Runner.from_cfg(Config.fromfile('options/mmagic/gramgan_sample_mmengine.py')).train()"
#   basicsr convert work_dirs/gramgan_sample/iter_600.pth --to basicsr -o net_g.pth
custom_imports = dict(imports=["gramgan_plugin.adapters.mmengine_registration"], allow_failed_imports=False)
default_scope = "mmengine"
experiment_name = "gramgan_sample"
work_dir = f"./work_dirs/{experiment_name}"

model = dict(
    type="GramGAN",
    generator=dict(type="RRDBNet", num_feat=32, num_block=3, num_grow_ch=32),
    discriminator=dict(type="GramGANDiscriminator", num_feat=16, input_size=96),
    pretrained="4x-RRDB-Lite",  # comes with the package; or a file of weights
    train=dict(
        ema_decay=0.99,
        precision="fp32",
        max_grad_ratio=10,
        d_penalty_opt=dict(type="GradientPenalty", kind="r1", loss_weight=0.02, every=2),
        pixel_opt=dict(type="L1Loss", loss_weight=3.0),
        gram_patch_opt=dict(type="GramPatchLoss", loss_weight=20, center=True),
        disc_perceptual_opt=dict(type="DiscPerceptualLoss", loss_weight=0.05, taps=["conv2_0", "conv4_0"]),
        gan_opt=dict(type="MaskedRaGANLoss", loss_weight=0.015),
    ),
)
adam = dict(type="Adam", lr=2e-4)
optim_wrapper = dict(
    constructor="GANOptimWrapperConstructor", generator=dict(optimizer=adam), discriminator=dict(optimizer=adam)
)
param_scheduler = dict(type="CosineRestartWarmupLR", by_epoch=False, period=600, warmup_iter=20, eta_min=1e-7)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="PairedSRDataset",
        phase="train",
        scale=4,
        gt_size=96,
        dataroot_gt="datasets/sample/GT.lmdb",
        dataroot_lq="datasets/sample/LQ_x4.lmdb",
    ),
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=600, val_interval=600)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20), checkpoint=dict(type="CheckpointHook", interval=300, by_epoch=False)
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
